-- Takes the promise back that the default partition holds nothing but certain weeks, unless somebody is proving it.
select unbound_default()
