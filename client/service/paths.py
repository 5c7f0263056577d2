"""What the service keeps in the home's `run` folder; nothing in it is needed after a stop."""

SAVED = "request.json"
STANDING = "vault.json"
RENEWED = "supernode.renewed"
AUTHORITY = "authority.pem"
FLOWER = "flower"
SUPERNODE, VAULT = "supernode", "vault"
