"""From counted values to finished bytes for a scrape."""
