# SPDX-License-Identifier: MIT
# Fuzzers: libFuzzer programs, which sources each one links besides itself, and how long each one runs.

FUZZ_SECONDS ?= 10
FUZZ_CC := clang
FUZZ_CFLAGS := -std=gnu17 -O1 -g -DCORBEL_HOST -DPROVE_MMU=1 -I. -I$(B) -Wall -Wextra -Werror
FUZZ_SAN := -fsanitize=address,undefined -fno-sanitize-recover=all

fuzz_acpi := arch/x86/acpi.c lib/printf.c
fuzz_config := $(test_config)
fuzz_decode := $(test_emulate)
fuzz_gdb := $(test_gdb)
fuzz_linux := $(test_linux)
fuzz_loader := $(test_loader)
fuzz_monitor := $(test_monitor)
fuzz_pieces := $(T_PIECES)
fuzz_stage2 := $(test_stage2)
fuzz_state := $(test_virtio)
fuzz_virtio := $(test_virtio)
FUZZERS := acpi config decode gdb linux loader monitor pieces stage2 state virtio

$(B)/fuzz/obj/%.c.o: %.c
	@mkdir -p $(@D)
	@echo "  FUZZCC  $<"
	$Q$(FUZZ_CC) $(FUZZ_CFLAGS) $(FUZZ_SAN) -fsanitize=fuzzer-no-link -MMD -MP -c $< -o $@
define fuzzer
$(B)/fuzz/$(1): $(patsubst %,$(B)/fuzz/obj/%.o,tests/fuzz/$(1)_fuzz.c $(fuzz_$(1)))
	$Q$(FUZZ_CC) $(FUZZ_SAN) -fsanitize=fuzzer $$^ -o $$@ -lcmocka -llz4 -lZydis -lZycore
endef
$(foreach f,$(FUZZERS),$(eval $(call fuzzer,$(f))))
.PHONY: fuzz
fuzz: $(patsubst %,$(B)/fuzz/%,$(FUZZERS))
	@tests/fuzz/run $(B)/fuzz $(FUZZ_SECONDS) $(FUZZERS)
