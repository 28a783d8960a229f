-- wrk's questions. arg[1] is a file of questions that lack their last word; here each gets one that nobody has asked
-- before, so that nothing comes out of a cache. arg[3], where there is one, is an API key. At the end, one line of JSON.
local threads = 0

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function init(args)
  questions = {}
  for line in io.lines(args[1]) do questions[#questions + 1] = line end
  headers = {["Content-Type"] = "application/json"}
  if args[3] then headers["Authorization"] = "Bearer " .. args[3] end
  math.randomseed(tonumber(args[2]) * 64 + number)
  math.random(); math.random()
end

local function new_word()
  local letters = {}
  for place = 1, 8 do letters[place] = string.char(96 + math.random(26)) end
  return table.concat(letters)
end

function request()
  local question = questions[math.random(#questions)] .. " " .. new_word() .. "?"
  return wrk.format("POST", "/chat", headers, '{"message":"' .. question .. '"}')
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\n{"answers":%d,"seconds":%.6f,"refused":%d,"broken":%d,"p50_ms":%.3f,"p99_ms":%.3f}\n',
    summary.requests, summary.duration / 1e6, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
