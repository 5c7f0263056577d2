"""The unit for systemd: it starts the command that there is, and keeps keys off the disk."""

import configparser
from pathlib import Path

UNIT = Path(__file__).resolve().parents[3] / "configs" / "deploy" / "consilience-node.service"


def unit():
    parser = configparser.ConfigParser(strict=False, delimiters=("=",), interpolation=None)
    parser.optionxform = str
    parser.read(UNIT)
    return parser["Service"]


def test_it_starts_the_node_and_lets_it_stop_by_itself():
    service = unit()
    assert service["ExecStart"].split()[-2:] == ["node", "start"]
    assert service["KillMode"] == "mixed" and int(service["TimeoutStopSec"]) > 24
    assert service["Restart"] == "on-failure"


def test_no_key_reaches_the_disk_and_nothing_but_the_home_is_written():
    service = unit()
    assert (service["LimitCORE"], service["MemorySwapMax"], service["UMask"]) == ("0", "0", "0077")
    assert service["ProtectSystem"] == "strict" and service["NoNewPrivileges"] == "yes"
    assert service["ReadWritePaths"] == service["WorkingDirectory"]
    assert service["RuntimeDirectoryMode"] == "0700" and service["CapabilityBoundingSet"] == ""
