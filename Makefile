# SPDX-License-Identifier: GPL-2.0
#
# What a person calls. The kernel's build reads Kbuild beside this file.

# A build directory of a kernel with the series applied. Without it the guest
# kernel in the cache is used, and made first if it isn't there.
KDIR ?=

ifneq ($(KDIR),)
# The module must be built by the compiler that the kernel was built by.
clang := $(shell sed -n 's/^CONFIG_CC_VERSION_TEXT=".*clang version \([0-9]*\)\..*/\1/p' $(KDIR)/.config 2>/dev/null)
ifneq ($(clang),)
LLVM ?= $(if $(shell command -v clang-$(clang)),-$(clang),1)
LIBCLANG_PATH ?= $(wildcard /usr/lib/llvm-$(clang)/lib)
ifneq ($(LIBCLANG_PATH),)
export LIBCLANG_PATH
endif
endif
kbuild = $(MAKE) -C $(KDIR) M=$(CURDIR) $(if $(LLVM),LLVM=$(LLVM))
endif

.PHONY: help
help: ## Show this
	@echo 'Targets:'
	@sed -nE 's/^([a-z_]+):.* ## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20
	@echo
	@echo 'Variables:'
	@echo '  KDIR=DIR          build the module for this kernel build directory'
	@echo '  KERNEL_SERIES=N   the Linux that the guest runs: 7.3, the default, or 6.18'
	@echo '  KERNEL_SRC=PATH   a tree or tarball of that Linux to use in place of a download'
	@echo '  ARGS="..."        more arguments for demo, bench, shell (see out/lab demo --help), sim;'
	@echo '                    the checks to run for test (see scripts/test.sh), or the'
	@echo '                    faults to put in (see scripts/faults)'
	@echo '  T=SCENARIO/TEST/POINT   with test: just that scenario, test or point, such as'
	@echo '                    sim/sim_tags.sh; VARIANT=debug: in the debug guest; JOBS=N: guests at a time'
	@echo '  WHAT=PART,...     the parts of the bench to run; QUICK=1 makes it a short run'
	@echo '  HOURS=N SEED=N    how long to soak, and what its chance begins with'
	@echo '  PAGE_HINTING_CACHE=DIR   sources and kernels; now'
	@echo '                    $${XDG_CACHE_HOME:-~/.cache}/page_hinting'

.PHONY: demo
demo: ## Boot a guest, free 2 GiB in it, and watch the host get them back: a minute; 11 the first time
	@scripts/guest.sh demo $(ARGS)

.PHONY: test
test: ## Run every test there is: 20 minutes on two CPUs; 50 the first time
	@T='$(T)' VARIANT='$(VARIANT)' JOBS='$(JOBS)' scripts/test.sh $(ARGS)

.PHONY: soak
soak: ## Do all that may be done in random order, for HOURS, and the tests with many more cycles
	@HOURS='$(HOURS)' SEED='$(SEED)' scripts/test.sh soak

.PHONY: series
series: ## Build and boot the guest kernel after each patch of the series: an hour
	@scripts/series-each.sh $(ARGS)

.PHONY: bench
bench: ## Measure hinting beside free page reporting, and write out/bench/report.rst: 95 minutes
	@WHAT='$(WHAT)' QUICK='$(QUICK)' scripts/bench.sh $(ARGS)

.PHONY: faults
faults: ## Break each thing on purpose, and see that its test fails: some hours
	@scripts/faults.sh $(ARGS)

.PHONY: kcsan
kcsan: ## Look for data races in the page allocator and the core, with KCSAN
	@scripts/kcsan.sh $(ARGS)

.PHONY: coverage
coverage: ## Show which lines of the series and of the policy the tests execute
	@scripts/coverage.sh $(ARGS)

.PHONY: suites
suites: ## Run the kernel's own tests of memory and stress-ng, without the series and with it: half an hour
	@scripts/suites.sh $(ARGS)

.PHONY: check
check: ## Run those tests that boot no guest
	@scripts/test.sh fmt clippy shell docs series unit

.PHONY: sim
sim: ## Run the policy and models of page_reporting in virtual time
	@scripts/sim.sh $(ARGS)

.PHONY: hintstat
hintstat: ## Build out/hintstat, a static program that shows in the guest what is hinted
	@scripts/build-hintstat.sh

.PHONY: modules
modules: ## Build page_hinting.ko, for KDIR= or for the guest
ifneq ($(KDIR),)
	+$(kbuild) modules
else
	@scripts/build-module.sh release
endif

.PHONY: modules_install
modules_install: ## Install the module, for KDIR= or into out/install
ifneq ($(KDIR),)
	+$(kbuild) modules_install
else
	@INSTALL_MOD_PATH=$(or $(INSTALL_MOD_PATH),$(CURDIR)/out/install) scripts/build-module.sh release
endif

.PHONY: kernel
kernel: ## Build the guest kernel, and say where it is
	@scripts/build-kernel.sh release

.PHONY: deb
deb: ## Build Debian packages of the guest kernel and of the module, into out/deb
	@scripts/build-deb.sh

.PHONY: deb_test
deb_test: ## Install the packages in a Debian, boot it, and look at what hinting does there: needs root
	@scripts/deb-test.sh

.PHONY: shell
shell: ## Boot a guest with the module and get a console in it
	@scripts/guest.sh shell $(ARGS)

.PHONY: clippy
clippy: ## Lint the Rust code, a warning is a failure
	@scripts/test.sh clippy

.PHONY: fmt
fmt: ## Format the Rust code in place
	rustfmt --edition 2021 $$(find rust -name '*.rs' -not -path 'rust/policy/*')
	for crate in $(wildcard tools/*/Cargo.toml rust/policy/Cargo.toml); do \
		cargo fmt --manifest-path $$crate || exit 1; \
	done

.PHONY: clean
clean: ## Remove what was built here; the cache stays
	rm -rf out
ifneq ($(KDIR),)
	+$(kbuild) clean
endif
