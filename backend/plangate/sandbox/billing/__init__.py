"""What moves money in the stand-in: items, invoices, renewals, schedules and the standing of subscriptions."""
