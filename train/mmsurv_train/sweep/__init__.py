"""Many configurations of one recipe: planned, trained in as few passes as possible, and put in one table.

``recipe`` reads what is asked, ``plan`` makes named configurations of it, ``identity`` says whether a folder holds
the same plan, ``execute`` trains and evaluates, ``table`` measures, ``text`` and ``published`` write for people.
"""
