//go:build failpoints

package failpoint

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Enabled reports whether this binary has failpoints.
const Enabled = true

// Env is the environment variable that arms points.
const Env = "CARILLON_FAILPOINT"

type action struct {
	kill bool
	err  error
	left int // hits before it acts
}

var state struct {
	sync.Mutex
	once  sync.Once
	armed map[Name]*action
}

// ErrInjected is what HitErr returns.
var ErrInjected = errors.New("failpoint: injected error")

func load() {
	armed, err := parse(os.Getenv(Env))
	if err != nil {
		fmt.Fprintln(os.Stderr, "failpoint:", err)
		os.Exit(2)
	}
	state.armed = armed
}

func parse(s string) (map[Name]*action, error) {
	armed := make(map[Name]*action)
	for part := range strings.SplitSeq(s, ",") {
		if part == "" {
			continue
		}
		name, what, ok := strings.Cut(part, "=")
		if !ok || !slices.Contains(slices.Concat(All(), OnRedis(), OfCluster(), OfTasks()), Name(name)) {
			return nil, fmt.Errorf("%s: %q names no failpoint", Env, part)
		}
		what, at, counted := strings.Cut(what, "@")
		n := 1
		if counted {
			var err error
			if n, err = strconv.Atoi(at); err != nil || n < 1 {
				return nil, fmt.Errorf("%s: %q: the hit is a number from 1", Env, part)
			}
		}
		switch what {
		case "kill":
			armed[Name(name)] = &action{kill: true, left: n}
		case "error":
			armed[Name(name)] = &action{err: ErrInjected, left: n}
		default:
			return nil, fmt.Errorf("%s: %q: the action is kill or error", Env, part)
		}
	}
	return armed, nil
}

// Set arms points for this process, in place of what was armed; the form is that of Env.
func Set(s string) error {
	state.once.Do(load)
	armed, err := parse(s)
	if err != nil {
		return err
	}
	state.Lock()
	state.armed = armed
	state.Unlock()
	return nil
}

// Hit passes the point.
func Hit(n Name) { _ = HitErr(n) }

// HitErr passes the point and returns the error armed there.
func HitErr(n Name) error {
	state.once.Do(load)
	state.Lock()
	defer state.Unlock()
	a := state.armed[n]
	if a == nil {
		return nil
	}
	if a.left--; a.left > 0 {
		return nil
	}
	if a.kill {
		kill()
	}
	return a.err
}
