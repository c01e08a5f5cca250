"""Results of the benchmark: rows on disk, names of metrics, averages. Tables and model cards are made from them."""
