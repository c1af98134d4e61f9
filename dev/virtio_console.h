/* SPDX-License-Identifier: MIT */
/*
 * A console (virtio 1.2, "Console Device") with one port, in Linux hvc0. It is another way to the
 * one console that the VM has: its output goes where the UART's goes, in the order in which it was
 * written; what is typed goes to the one of the two that wrote last.
 */
#pragma once

#include "dev/uart16550.h"
#include "dev/virtio.h"

/* 0 and *out; -ENOMEM, or io_register's error. The UART lives as long as this. */
int virtio_console_create(struct vm *vm, struct uart *uart, struct virtio **out);
