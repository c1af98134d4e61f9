; SPDX-License-Identifier: MIT
; The page tables that all vCPUs begin with: 4 GiB one to one, by 2 MiB; and one table of 4 KiB pages, empty, for what
; tests map at WINDOW.
section .data
align 4096
global boot_tables, window_pte
boot_tables:
	dq	pdpt + 3
	dq	window_pdpt + 7
	times 510 dq 0
pdpt:
%assign i 0
%rep 4
	dq	pd + i * 4096 + 3
%assign i i + 1
%endrep
	times 508 dq 0
pd:
%assign i 0
%rep 2048
%if i >= 0xc0000000 / 0x200000
	dq	i * 0x200000 + 0x9b	; devices: uncached
%else
	dq	i * 0x200000 + 0x83
%endif
%assign i i + 1
%endrep
window_pdpt:
	dq	window_pd + 7
	times 511 dq 0
window_pd:
	dq	window_pte + 7
	times 511 dq 0
window_pte:
	times 512 dq 0

section .note.GNU-stack noalloc noexec nowrite progbits
