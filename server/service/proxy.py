"""The reverse proxy that stands between institutions and the link: an nginx that knows the fleet's paths and nothing else.

The link serves three interfaces on one port, and two of them are not for institutions: control (start runs, let nodes in), which obeys
anybody, and runtime. The link listens on loopback, and this is the only way in from outside: a POST to one plain path under /v1/fleet/,
as it was sent, without a query, an escape or a dot. Everything else is not found.
"""

from pathlib import Path

from federation.errors import DocumentError
from server.config import CoordinatorConfig

FLEET = "^/v1/fleet/[a-z]+(-[a-z]+)*$"
FOLDER = "nginx"
"""Under the run folder: nginx's prefix, where all that it writes lies."""
FILE = "nginx.conf"
PUSH = "/v1/fleet/push-object"
"""The one path on which nodes send something large: the objects that their answers consist of."""
LARGEST_MESSAGE_MIB = 128
LARGEST_BODY_MIB = LARGEST_MESSAGE_MIB + 2
"""A message with what travels around it."""
LARGE_BODIES = 64
LARGE_BODIES_OF_ONE = 16
"""How many bodies may arrive on that path at once, from all senders and from one."""
_ODD = set("\"'\\{};$\n\r")

_PAGE = """\
# Rendered by `consilience coordinator proxy`; `coordinator start` renders it anew, so change coordinator.yaml and not this file.
# nginx runs as the coordinator's own account, and writes below this folder alone. A port below 1024 needs CAP_NET_BIND_SERVICE.
worker_processes 1;
worker_rlimit_nofile 8192;
pid nginx.pid;
error_log stderr warn;
daemon off;

events {{
    worker_connections 4096;
}}

http {{
    server_tokens off;
    access_log off;                      # no addresses, and never a body
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path unused;
    uwsgi_temp_path unused;
    scgi_temp_path unused;

    # The path exactly as it was sent: what nginx itself would make of dots and escapes does not count.
    map $request_uri $fleet {{
        default 0;
        "~{fleet}" 1;
    }}

    limit_conn_zone $binary_remote_addr zone=senders:1m;
    limit_conn_zone $binary_remote_addr zone=pushers:1m;
    limit_conn_zone $server_name zone=bodies:1m;

    upstream link {{
        server 127.0.0.1:{link_port};
        keepalive 64;
    }}

    server {{
        listen {listen} ssl;
        server_name _;

        ssl_certificate "{certificate}";
        ssl_certificate_key "{key}";
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_cache shared:tls:4m;
        ssl_session_tickets off;

        # Bodies are read whole before the link sees the request, so that a slow sender holds a file here and not a worker there.
        # The link checks signatures, and so after that: until then a body is a stranger's, and only few of them may be large.
        client_max_body_size 1m;
        client_body_buffer_size 256k;
        client_header_timeout 15s;
        client_body_timeout 60s;
        send_timeout 60s;
        keepalive_timeout 75s;
        keepalive_requests 100000;
        limit_conn senders 256;

        # What follows holds for every location, and before one is chosen.
        if ($fleet = 0) {{
            return 404;
        }}
        if ($request_method != POST) {{
            return 404;
        }}
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host localhost;
        proxy_set_header X-Forwarded-For "";
        proxy_set_header X-Forwarded-Proto "";
        proxy_set_header Forwarded "";
        proxy_ssl_verify on;
        proxy_ssl_verify_depth 1;
        proxy_ssl_trusted_certificate "{authority}";
        proxy_ssl_name localhost;
        proxy_ssl_protocols TLSv1.2 TLSv1.3;
        proxy_ssl_session_reuse on;
        proxy_connect_timeout 5s;
        proxy_send_timeout 60s;
        proxy_read_timeout 120s;
        proxy_next_upstream off;         # nothing is sent twice
        proxy_max_temp_file_size {largest}m;

        location = {push} {{
            client_max_body_size {largest}m;
            limit_conn bodies {bodies};        # from all senders together
            limit_conn pushers {pushes};       # from one
            limit_conn senders 256;      # again: the server's counts only where a location has none of its own
            proxy_pass https://link;
        }}

        location ~ ^/v1/fleet/ {{
            proxy_pass https://link;
        }}

        location / {{
            return 404;
        }}
    }}
}}
"""


def render(config: CoordinatorConfig, home: Path) -> str:
    """Return the configuration of nginx for a coordinator's home.

    Raises
    ------
    DocumentError
        CSL-S815 when the home's path holds a sign that nginx would read as its own.
    """
    folder = home.absolute() / "tls"
    if _ODD & set(str(folder)):
        raise DocumentError(
            "CSL-S815",
            f"The path {folder} cannot be written into a configuration of nginx.",
            "Move the home to a path without quotes, braces, semicolons, dollar signs and backslashes.",
        )
    return _PAGE.format(
        fleet=FLEET,
        link_port=config.link_port,
        listen=config.listens,
        certificate=folder / "server.pem",
        key=folder / "server.key",
        authority=folder / "ca.pem",
        largest=LARGEST_BODY_MIB,
        push=PUSH,
        bodies=LARGE_BODIES,
        pushes=LARGE_BODIES_OF_ONE,
    )


def command(nginx: str, folder: Path, *, root: bool = False) -> tuple[str, ...]:
    """Return the command that runs nginx in the foreground with `folder` (absolute) as its prefix.

    `root`: it is root who runs it, in a container say; nginx would then work as another account, which may not enter the home.
    """
    same_account = ("-g", "user root;") if root else ()
    return (nginx, "-e", "stderr", "-p", f"{folder}/", "-c", str(folder / FILE), *same_account)
