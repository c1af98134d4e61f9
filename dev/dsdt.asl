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

		Device (PWRB) { Name (_HID, EisaId ("PNP0C0C")) }
		Device (SLPB) { Name (_HID, EisaId ("PNP0C0E")) }

		// Says which of them was pressed: dev/power.h.
		Device (GED)
		{
			Name (_HID, "ACPI0013")
			Name (_CRS, ResourceTemplate ()
			{
				Interrupt (ResourceConsumer, Level, ActiveHigh, Exclusive) { 9 }
			})
			OperationRegion (BTNS, SystemIO, 0x602, 1)
			Field (BTNS, ByteAcc, NoLock, Preserve) { PRES, 8 }
			Method (_EVT, 1)
			{
				Local0 = PRES
				If (Local0 & 1) { Notify (PWRB, 0x80) }
				If (Local0 & 2) { Notify (SLPB, 0x80) }
			}
		}

		// The virtio devices that this VM has, a bit each: dev/acpi.c writes it here.
		Name (VDEV, 0xff)
		Method (VSTA, 1)
		{
			If ((VDEV >> Arg0) & 1) { Return (0x0f) }
			Return (0)
		}

		Device (VBLK)
		{
			Name (_HID, "LNRO0005")
			Name (_UID, 0)
			Method (_STA) { Return (VSTA (0)) }
			Name (_CRS, ResourceTemplate ()
			{
				Memory32Fixed (ReadWrite, 0xfeb00000, 0x200)
				Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { 16 }
			})
		}

		Device (VNET)
		{
			Name (_HID, "LNRO0005")
			Name (_UID, 1)
			Method (_STA) { Return (VSTA (1)) }
			Name (_CRS, ResourceTemplate ()
			{
				Memory32Fixed (ReadWrite, 0xfeb01000, 0x200)
				Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { 17 }
			})
		}

		Device (VRNG)
		{
			Name (_HID, "LNRO0005")
			Name (_UID, 2)
			Method (_STA) { Return (VSTA (2)) }
			Name (_CRS, ResourceTemplate ()
			{
				Memory32Fixed (ReadWrite, 0xfeb02000, 0x200)
				Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { 18 }
			})
		}

		Device (VCON)
		{
			Name (_HID, "LNRO0005")
			Name (_UID, 3)
			Method (_STA) { Return (VSTA (3)) }
			Name (_CRS, ResourceTemplate ()
			{
				Memory32Fixed (ReadWrite, 0xfeb03000, 0x200)
				Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { 19 }
			})
		}
	}
}
