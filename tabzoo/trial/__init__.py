"""Is pre-training worth it on these photos? One command measures start and result and says so in one sentence."""
