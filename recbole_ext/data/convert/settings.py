"""The settings that lie beside converted files, so that any model runs on them as they are."""

from __future__ import annotations

SETTINGS = """\
# {command}
# Written by `recbole-ext convert`; conversion.json says from what. Every model on this data reads
# this file; your own files and the command line are stronger.

# Columns.{items}
load_col:                         # (dict) Fields to load, by file.
  inter: [user_id, item_id, rating, timestamp]

# Times. RecBole keeps floats in 32 bits, where today's Unix times are 128 s apart; scaled to [0, 1]
# before that, a year of interactions keeps the order of those 2 s apart.
normalize_field: [timestamp]      # (list) Float fields scaled to [0, 1].
normalize_all: ~                  # (bool) Scale every float field.

# Filters. The conversion did what it was asked to; nothing is left out once more.
rm_dup_inter: ~                   # (str) Keep of repeated pairs the 'first' or the 'last'.
val_interval: ~                   # (dict) Keep interactions whose field lies in an interval.
user_inter_num_interval: ~        # (str) Keep users with so many interactions, and
item_inter_num_interval: ~        # (str) items with so many.
"""


def settings_text(command: str, item_columns: tuple[str, ...]) -> str:
    """Return the file: with the command that runs it, and the names of the items' columns."""
    names = ", ".join(["item_id", *(column.partition(":")[0] for column in item_columns)])
    items = f" SASRecF and FDSA need those of items too: item: [{names}]" if item_columns else ""
    return SETTINGS.format(command=command, items=items)
