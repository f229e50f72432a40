"""What people see: hosted Checkout, invoices, the billing portal and the control page, plainly marked as a sandbox."""
