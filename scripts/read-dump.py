#!/usr/bin/env drgn
# SPDX-License-Identifier: GPL-2.0
"""What drgn finds of free memory in a dump: drgn -c DUMP -s VMLINUX read-dump.py

Prints, in KiB: free pages as counted (vmstat), as the free lists have them that
every kernel has, and as the lists of what the host knows have them, with the
number of slab caches found, which is read by the type of each page.
"""

from drgn.helpers.linux.list import list_count_nodes
from drgn.helpers.linux.mm import PageSlab, for_each_page
from drgn.helpers.linux.mmzone import for_each_online_pgdat
from drgn.helpers.linux.vmstat import nr_free_pages

PAGE_KIB = prog["PAGE_SIZE"].value_() // 1024


def listed(name):
    pages = 0
    for pgdat in for_each_online_pgdat(prog):
        for zone in pgdat.node_zones:
            if not zone.managed_pages.counter:
                continue
            for order, area in enumerate(zone.free_area):
                if not hasattr(area, name):
                    continue
                for head in getattr(area, name):
                    pages += list_count_nodes(head.address_of_()) << order
    return pages


slab = 0
for page in for_each_page(prog):
    try:
        slab += bool(PageSlab(page))
    except FaultError:
        pass
print(
    f"{nr_free_pages(prog) * PAGE_KIB} counted,"
    f" {listed('free_list') * PAGE_KIB} on free_list,"
    f" {listed('offline_list') * PAGE_KIB} on offline_list,"
    f" {slab * PAGE_KIB} in slabs"
)
