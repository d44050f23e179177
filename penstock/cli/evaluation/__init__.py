"""`penstock eval`: how good the rankings of a running service are, by judgements of people."""
