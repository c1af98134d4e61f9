/* SPDX-License-Identifier: MIT */
/*
 * A network card (virtio 1.2, "Network Device") on a switch between VMs. A switch is a name: all
 * cards with the same one hear each other, and nothing else: there is no way to the outside.
 *
 * A frame goes to the card whose MAC address it has, or to all others if it is for a group; nothing
 * is learned. It is copied once out of the sender's ring and once into each receiver's, by the
 * sender's vCPU. Who has no buffer ready loses it, and counts that.
 *
 * Locks: that of all switches (RANK_SWITCH), and within it one card's at a time. A card leaves its
 * switch before it is destroyed. Frames go only to VMs that run.
 */
#pragma once

#include "dev/virtio.h"

#define VIRTIO_NET_MAC	6
#define VIRTIO_NET_NAME 32

struct virtio_network {
	const char *name; /* of the switch, shorter than VIRTIO_NET_NAME; NULL: no card */
	u8 mac[VIRTIO_NET_MAC];
};

/* 0 and *out; -ENOMEM, io_register's error, or -EEXIST: the switch has a card with that address. */
int virtio_net_create(struct vm *vm, const struct virtio_network *network, struct virtio **out);
