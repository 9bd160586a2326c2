"""One verdict per claim: the protocol, the rule, planted against measured."""
