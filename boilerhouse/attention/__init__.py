"""What needs an operator: the present causes, read from the rows. The dashboard shows them; notifications send them."""
