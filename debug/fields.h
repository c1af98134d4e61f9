/* SPDX-License-Identifier: MIT */
/* What the bits of a VMCS's or VMCB's control fields are called. */
#pragma once

#include "lib/types.h"

/*
 * Print ` bits="..."` behind the value of a control field, or ` vector=N type=...` behind that of
 * an event; nothing behind others.
 */
void fields_explain(const char *name, u64 value);
