"""What the boot loader and the serial console are told, by editing the files that tell them."""
