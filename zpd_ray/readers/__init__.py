"""From files to items: which files, what rows they hold, what an item is, which rows repeat another.

Nothing here imports ray: the pipeline calls these functions inside its tasks, a file or a part at a time.
"""
