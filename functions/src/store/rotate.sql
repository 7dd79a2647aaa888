-- Forgets the dequeues of the hour before last and begins a new hour. The lock lets no dequeue straddle the
-- swap; whoever waits for it longer than the limit gives up and tries again with the next sweep.
set local lock_timeout = '2s';
lock table dequeues, dequeues_before in access exclusive mode;
truncate dequeues_before;
alter table dequeues_before rename to dequeues_next;
alter table dequeues rename to dequeues_before;
alter table dequeues_next rename to dequeues;
update ticks set rotated_at = now()
