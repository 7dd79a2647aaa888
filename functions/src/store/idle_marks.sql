-- Looks after the marks that no claim moves. A tenant's that no scoped claim has taken by in a while are forgotten: new
-- lines of its would begin behind them, once it is left to the other workers. A queue's, which only unscoped claims move,
-- follows its lowest row, so that what scoped claims took is not read again and again under an old transaction;
-- it stays in front of it, where what is given back goes.
with forgotten as (
  delete from tenant_queues where advanced_at < now() - interval '1 minute'
)
update queues q
set scan_from = least(q.virtual_rank, lowest.rank), virtual_rank = greatest(q.virtual_rank, lowest.rank)
from (
  select idle.id, (
    select r.rank - 1 from ready r where r.queue_id = idle.id and r.rank >= idle.scan_from order by r.rank limit 1) as rank
  from (
    select q.id, q.scan_from from queues q where q.advanced_at < now() - interval '5 seconds'
    for update skip locked
  ) idle
) lowest
where q.id = lowest.id and (q.scan_from < least(q.virtual_rank, lowest.rank) or q.virtual_rank < lowest.rank)
