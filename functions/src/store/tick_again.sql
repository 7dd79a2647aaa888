-- Makes the next tick due at once: this one had a full batch.
update ticks set ticked_at = now() - interval '1 second'
