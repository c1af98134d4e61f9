/* SPDX-License-Identifier: MIT */
/*
 * A 16550A serial port: registers as in the National Semiconductor PC16550D data sheet.
 * Transmission takes no time: the holding register is empty again after each write, with the
 * interrupt that this means.
 *
 * Any CPU may call; the port has a lock (RANK_DEVICE). output and the interrupt line are called
 * under it, so `output` may take locks that rank after RANK_DEVICE (the console's), and must not
 * call back. input_ready is called without it.
 */
#pragma once

#include "lib/spinlock.h"
#include "virt/vm.h"

#define UART_FIFO_SIZE 16

struct uart {
	struct vm *vm;
	u32 irq; /* GSI */
	struct spinlock lock;
	bool line;	  /* of the interrupt */
	bool thr_empty;	  /* the THRE interrupt is pending */
	bool input_waits; /* uart_receive had to refuse bytes */
	u8 ier, lcr, mcr, lsr_errors, scratch, dll, dlm;
	u8 fcr;	  /* enable and trigger bits */
	u8 modem; /* MSR: the four lines and the deltas */
	u8 fifo_head, fifo_count;
	u8 fifo[UART_FIFO_SIZE];
	/* Set by the console's owner, before the VM runs; may be NULL. */
	void (*output)(void *arg, const u8 *bytes, size_t n);
	void (*input_ready)(void *arg);
	void *arg;
	/*
	 * Another device whose output and input are those of this port: what is typed goes there
	 * while it is the one that wrote last. False: it takes no input now. May be NULL.
	 */
	bool (*second_receive)(void *second, const u8 *bytes, size_t n, size_t *taken);
	void *second;
	bool second_wrote; /* atomic */
};

/* Registers the port at 8 I/O ports from `port`. 0, or io_register's error. */
int uart_create(struct uart *u, struct vm *vm, u16 port, u32 irq);
/* Power-on state; the callbacks stay. The VM is not running. */
void uart_reset(struct uart *u);
/* Output of the second device, in the order in which both write. */
void uart_write_second(struct uart *u, const u8 *bytes, size_t n);
/*
 * Input for the guest. Returns how many bytes were taken; the rest stays the caller's, and
 * input_ready tells when to try again.
 */
size_t uart_receive(struct uart *u, const u8 *bytes, size_t n);
