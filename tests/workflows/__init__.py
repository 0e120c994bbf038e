"""The action, its scripts and the workflows: linted, held to rules of our own, and executed in a fake runner."""
