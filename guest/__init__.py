"""The boot agent: runs once per boot, then keeps watch."""
