#!lua
-- One decision: trim, count, add only what is allowed, expire. One key: the accept times of one bucket.
-- ARGV: limit, window (microseconds), member. Returns allowed (0 or 1), count, oldest, now (microseconds).
-- The first line makes Redis refuse the script when it has no memory left; without it the trim would count
-- as a first write, after which Redis lets a script write past its bound.
-- Microseconds are exact in a double, but Lua keeps 14 digits when it turns a number into text itself.
local call, format, key = redis.call, string.format, KEYS[1]
local limit, window, member = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local time = call('TIME')
local micros = time[1] * 1000000 + time[2]
local now = format('%.0f', micros)

call('ZREMRANGEBYSCORE', key, '-inf', format('%.0f', micros - window))
-- Entries from the future are left behind by a clock that was set back: they would lock the client out.
call('ZREMRANGEBYSCORE', key, '(' .. now, '+inf')

local allowed, count, oldest = 0, call('ZCARD', key), now
if count > 0 then
  oldest = format('%.0f', call('ZRANGE', key, 0, 0, 'WITHSCORES')[2])
end
if count < limit then
  call('ZADD', key, now, member)
  call('PEXPIRE', key, 61000)
  allowed, count = 1, count + 1
end
return { allowed, count, oldest, now }
