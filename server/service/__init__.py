"""The coordinator's service: link, executor and one process for each running study, kept alive and reconciled with what is wanted."""
