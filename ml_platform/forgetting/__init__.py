"""Forgetting: everything that holds an entity's value is listed, removed and looked for again."""
