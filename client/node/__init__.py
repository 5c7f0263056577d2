"""Commands of `consilience node`, one module for each kind; `client.node_command` puts them together."""
