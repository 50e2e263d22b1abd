package heap

import (
	"math"
	"runtime/debug"
	"testing"
	"testing/fstest"
)

func file(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }

const sixteenGiB = "MemTotal:       16777216 kB\nMemFree:         1 kB\n"

func TestGiven_IsTheLeastOfMachineAndGroups(t *testing.T) {
	cases := []struct {
		name string
		root fstest.MapFS
		want int64
		from string
	}{
		{"a machine without groups", fstest.MapFS{"proc/meminfo": file(sixteenGiB)}, 16 << 30, "machine"},
		{"a group that may have all", fstest.MapFS{
			"proc/meminfo": file(sixteenGiB), "proc/self/cgroup": file("0::/a/b\n"), "sys/fs/cgroup/a/b/memory.max": file("max\n"),
		}, 16 << 30, "machine"},
		{"a limit above the group", fstest.MapFS{
			"proc/meminfo": file(sixteenGiB), "proc/self/cgroup": file("0::/a/b\n"),
			"sys/fs/cgroup/a/b/memory.max": file("4294967296\n"), "sys/fs/cgroup/a/memory.max": file("2147483648\n"),
		}, 2 << 30, "control group"},
		{"a container that sees only the top", fstest.MapFS{
			"proc/meminfo": file(sixteenGiB), "proc/self/cgroup": file("0::/\n"), "sys/fs/cgroup/memory.max": file("1073741824\n"),
		}, 1 << 30, "control group"},
		{"version 1", fstest.MapFS{
			"proc/meminfo": file(sixteenGiB), "proc/self/cgroup": file("5:cpu,cpuacct:/x\n4:memory:/docker/1\n"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes": file("3221225472\n"),
		}, 3 << 30, "control group"},
		{"version 1 without a limit", fstest.MapFS{
			"proc/meminfo": file(sixteenGiB), "proc/self/cgroup": file("4:memory:/\n"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes": file("9223372036854771712\n"),
		}, 16 << 30, "machine"},
		{"nothing to read", fstest.MapFS{}, 0, "unknown"},
		{"nonsense", fstest.MapFS{"proc/meminfo": file("MemTotal: many kB\n"), "proc/self/cgroup": file("::\n\n0:x\n")}, 0, "unknown"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got, from := Given(c.root); got != c.want || from != c.from {
				t.Errorf("got %d by the %s, want %d by the %s", got, from, c.want, c.from)
			}
		})
	}
}

func TestApply_TheEnvironmentWins(t *testing.T) {
	root := fstest.MapFS{"proc/meminfo": file(sixteenGiB)}
	cases := []struct {
		name    string
		config  Config
		env     map[string]string
		limit   int64 // of the runtime afterwards
		percent int
		want    Applied
	}{
		{"derived", Config{LimitBytes: Auto, GCPercent: 60}, nil, (16 << 30) / 100 * AutoPercent, 60,
			Applied{(16 << 30) / 100 * AutoPercent, "machine", "60", "configuration"}},
		{"given", Config{LimitBytes: 1 << 30, GCPercent: 60}, nil, 1 << 30, 60, Applied{1 << 30, "configuration", "60", "configuration"}},
		{"none", Config{GCPercent: 60}, nil, math.MaxInt64, 60, Applied{0, "configuration", "60", "configuration"}},
		{"by the environment", Config{LimitBytes: 1 << 30, GCPercent: 60}, map[string]string{"GOGC": "77", "GOMEMLIMIT": "5GiB"},
			5 << 30, 77, Applied{5 << 30, "GOMEMLIMIT", "77", "GOGC"}},
		{"empty variables say nothing", Config{LimitBytes: 1 << 30, GCPercent: 60}, map[string]string{"GOGC": "", "GOMEMLIMIT": ""},
			1 << 30, 60, Applied{1 << 30, "configuration", "60", "configuration"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			defer debug.SetGCPercent(debug.SetGCPercent(77)) // as if the runtime had read the variables
			defer debug.SetMemoryLimit(debug.SetMemoryLimit(5 << 30))
			c.config.Root = root
			c.config.Env = func(name string) (string, bool) { v, ok := c.env[name]; return v, ok }
			if got := Apply(c.config); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
			if got := debug.SetMemoryLimit(-1); got != c.limit {
				t.Errorf("the runtime's limit is %d, want %d", got, c.limit)
			}
			if got := debug.SetGCPercent(1); got != c.percent {
				t.Errorf("the runtime's percentage is %d, want %d", got, c.percent)
			}
		})
	}
}
