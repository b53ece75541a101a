#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# The guest reboots while page_reporting waits for a host that does not answer. This runs
# twice, before and after ("again"): the shutdown does not wait for the host.

. "$(dirname "$0")/lib.sh"

restart_while_silent "$1" stall_page_reporting
run_tests test_restarts_and_hints
