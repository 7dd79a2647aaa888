-- Takes the promise back that the default partition holds nothing but certain weeks.
select unbound_default()
