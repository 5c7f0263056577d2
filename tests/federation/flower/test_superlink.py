import sqlite3

from flwr.supercore import sql_mixin
from flwr.supercore.constant import SQLITE_PRAGMAS

from federation.flower import superlink


def test_the_links_database_waits_for_its_lock_nearly_as_long_as_those_who_ask(monkeypatch):
    monkeypatch.setattr(sql_mixin, "SQLITE_PRAGMAS", SQLITE_PRAGMAS)
    superlink.wait_for_the_lock()
    connection = sqlite3.connect(":memory:")
    sql_mixin._set_sqlite_pragmas(connection, None)
    assert connection.execute("PRAGMA busy_timeout").fetchone() == (superlink.BUSY_MILLISECONDS,)
    assert 5_000 < superlink.BUSY_MILLISECONDS < 30_000


def test_every_other_setting_stays_as_flower_has_it(monkeypatch):
    monkeypatch.setattr(sql_mixin, "SQLITE_PRAGMAS", SQLITE_PRAGMAS)
    superlink.wait_for_the_lock()
    ours, stock = dict(sql_mixin.SQLITE_PRAGMAS), dict(SQLITE_PRAGMAS)
    assert ours.keys() == stock.keys() and {name for name in stock if ours[name] != stock[name]} == {"busy_timeout"}
