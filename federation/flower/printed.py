"""What Flower's SuperNode prints and exits with, as far as somebody reads it; tests hold each against Flower's source."""

TLS_FAILED = "SSL/TLS handshake error detected"
NOT_LET_IN = "[code: 2004]"
"""The link does not know the key, or counts it as on line already."""
ENDED = "SuperNode terminated gracefully."
RETRIES = "Connection attempt failed, retrying"
CONNECTED = ("SuperNode ID:", "Connection successful after", "Received successfully", "Sent successfully")
KEY_INVALID = "Exit Code: 302"
SECRET_UNREADABLE = "Exit Code: 401"
ADDRESS_INVALID = "Exit Code: 600"
VERSIONS_DIFFER = "Exit Code: 606"
