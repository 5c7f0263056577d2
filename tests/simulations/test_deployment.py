from pathlib import Path

from simulations.deployment import Deployment


def test_parties_find_their_folders_wherever_a_command_of_theirs_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    deployment = Deployment(Path("out"), [], lambda line: None)
    deployment.root.mkdir()
    assert deployment.root == tmp_path / "out" and deployment.coordinator.home.is_absolute()
    assert deployment._passed("card.json").is_absolute()
