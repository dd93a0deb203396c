"""Configurations of tests, which count and train by the plain recipe unless they are about another."""

from melcnn import configure


def plain(words=("yes", "no"), **settings):
    return configure(words, **{"recipe": "plain", **settings})
