/* SPDX-License-Identifier: MIT */
/* What a guest can't find out by itself and that is the same in every VM. The CPUs are in an SSDT, see acpi.c. */
DefinitionBlock ("", "DSDT", 2, "CORBEL", "CORBELVM", 1)
{
	/* SLP_TYP 5 in the sleep control register is power-off: POWER_S5_TYPE */
	Name (_S5, Package () { 5, 5, 0, 0 })

	Scope (_SB)
	{
		Device (COM1)
		{
			Name (_HID, EisaId ("PNP0501"))
			Name (_UID, 1)
			Name (_STA, 0x0f)
			Name (_CRS, ResourceTemplate ()
			{
				IO (Decode16, 0x03f8, 0x03f8, 0, 8)
				IRQ (Edge, ActiveHigh, Exclusive) { 4 }
			})
		}
	}
}
