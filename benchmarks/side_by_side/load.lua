-- The load of one timed run, for wrk; `wrk.py` writes the folder that it is given.
--   spec.lua    rows (a request), known (how many are known), share (of known ones), row_bytes, stamp, first, text
--   front, between, end, known, tail    bytes, as they stand in a body
-- A row is a known one with the probability `share`; else it is new: a stamp that counts, and the tail.
--
-- A binary request is made once and its rows are written over in place (wrk copies it before it sends it): strings of
-- megabytes, made anew for each request, would take more of the cores than the servers do.
local ffi = require("ffi")
local spec, front, between, last, tail, head, binary, places
local known, whole, counter = {}, {}, 0
local pair, number = ffi.new("float[2]"), ffi.new("uint64_t[1]")

local function read(folder, name)
  local file = assert(io.open(folder .. "/" .. name, "rb"))
  local content = file:read("*a")
  file:close()
  return content
end

local stamps = {
  float32 = function(n)
    pair[0], pair[1] = (n % 4099) / 4099, math.floor(n / 4099) % 1048576 / 1048576
    return ffi.string(pair, 8)
  end,
  uint8 = function(n)
    number[0] = n
    return ffi.string(number, 8)
  end,
  text = function(n)
    return string.format("%.9g, %.9g", (n % 4099) / 4099, math.floor(n / 4099) % 1048576 / 1048576)
  end,
}

local function text_row()
  if spec.share > 0 and math.random() < spec.share then return known[math.random(spec.known)] end
  counter = counter + 1
  return spec.before .. stamps[spec.stamp](counter) .. tail
end

function init(args)
  local folder = args[1]
  spec = dofile(folder .. "/spec.lua")
  front, between, last, tail = read(folder, "front"), read(folder, "between"), read(folder, "end"), read(folder, "tail")
  counter = spec.first
  math.randomseed(spec.first)
  local all = read(folder, "known")
  if spec.text then
    for line in all:gmatch("[^\n]+") do known[#known + 1] = line end
  else
    for at = 1, #all, spec.row_bytes do known[#known + 1] = all:sub(at, at + spec.row_bytes - 1) end
  end
  wrk.method = "POST"
  for name, value in pairs(spec.headers) do wrk.headers[name] = value end
  if spec.text then return end
  local empty = string.rep("x", spec.row_bytes)
  local rows = {}
  for at = 1, spec.rows do rows[at] = empty end
  local body = front .. table.concat(rows, between) .. last
  local request = wrk.format("POST", nil, nil, body)
  head = request:sub(1, #request - #body)
  if spec.rows == 1 and spec.share == 1 then
    for at, each in ipairs(known) do whole[at] = head .. front .. each .. last end
    return
  end
  binary, places = head .. body, {}
  local start = ffi.cast("char *", ffi.cast("const char *", binary)) + #head + #front
  for at = 1, spec.rows do
    places[at] = start + (at - 1) * (spec.row_bytes + #between)
    ffi.copy(places[at] + 8, tail, #tail)
  end
end

local function write_row(place)
  if spec.share > 0 and math.random() < spec.share then
    ffi.copy(place, known[math.random(spec.known)], spec.row_bytes)
    return
  end
  counter = counter + 1
  ffi.copy(place, stamps[spec.stamp](counter), 8)
  if spec.share > 0 then ffi.copy(place + 8, tail, #tail) end
end

function request()
  if whole[1] then return whole[math.random(#whole)] end
  if binary then
    for at = 1, spec.rows do write_row(places[at]) end
    return binary
  end
  local rows = {}
  for at = 1, spec.rows do rows[at] = text_row() end
  return wrk.format("POST", nil, nil, front .. table.concat(rows, between) .. last)
end

function done(summary, latency, requests)
  local errors = summary.errors
  local bad = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  print(string.format('{"requests": %d, "seconds": %.6f, "bad": %d, "p50": %.6f, "p99": %.6f}', summary.requests,
    summary.duration / 1e6, bad, latency:percentile(50) / 1e6, latency:percentile(99) / 1e6))
end
