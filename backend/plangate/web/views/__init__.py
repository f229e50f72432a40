"""Turn what Plangate knows (catalogue, company, decisions, quotes) into the view models of the fragments. No I/O."""
