/* SPDX-License-Identifier: MIT */
#include "lib/error.h"
#include "lib/log.h"

int trace_error_at(int code, const char *file, int line)
{
	log_debug("%s:%d: error %d (%s)", file, line, code, error_name(code));
	return code;
}

const char *error_name(int code)
{
	static const char *const names[] = {
		[0] = "no error",
		[EPERM] = "not permitted",
		[ENOENT] = "not found",
		[EIO] = "faulted",
		[EUCLEAN] = "damaged structures",
		[ENXIO] = "no such device or address",
		[EAGAIN] = "try again",
		[ENOMEM] = "out of memory",
		[EFAULT] = "bad address",
		[EBUSY] = "busy",
		[EEXIST] = "already there",
		[ENODEV] = "no such device",
		[EINVAL] = "invalid",
		[ENOSPC] = "no space",
		[ERANGE] = "out of range",
		[EOPNOTSUPP] = "not supported",
		[ETIMEDOUT] = "timed out",
	};
	u32 number = code < 0 ? 0u - (u32)code : (u32)code;

	return number < ARRAY_SIZE(names) && names[number] ? names[number] : "error";
}
