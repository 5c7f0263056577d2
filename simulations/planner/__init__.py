"""Which budget buys which result: planning on public or synthetic data, which costs nobody any."""
