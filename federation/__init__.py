"""What all members agree on: charter, feature contract, study, networks, messages, signatures."""
