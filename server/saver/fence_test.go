package saver

import (
	"testing"

	"carillon/server/push"
)

func TestStoredFence_Raise(t *testing.T) {
	const now = push.MilliTime(1000)
	is := StoredFence{Token: 5, Until: 2000, Body: true}
	for _, c := range []struct {
		name string
		was  StoredFence
		to   Fence
		body bool
		want StoredFence // zero: refused
	}{
		{"none before", StoredFence{}, Fence{Token: 1, Until: 3000}, false, StoredFence{1, 3000, false}},
		{"none before, with a body", StoredFence{}, Fence{Token: 1, Until: 3000}, true, StoredFence{1, 3000, true}},
		{"higher", is, Fence{Token: 6, Until: 3000}, false, StoredFence{6, 3000, true}},
		{"equal", is, Fence{Token: 5, Until: 1500}, false, StoredFence{5, 2000, true}},
		{"with a body later", StoredFence{5, 2000, false}, Fence{Token: 6, Until: 2000}, true, StoredFence{6, 2000, true}},
		{"lower", is, Fence{Token: 4, Until: 3000}, true, StoredFence{}},
		{"over", StoredFence{5, 1000, true}, Fence{Token: 1, Until: 1500}, false, StoredFence{1, 1500, false}},
	} {
		got, err := c.was.Raise(&c.to, c.body, now)
		if got != c.want || (err != nil) != (c.want == StoredFence{}) || err != nil && push.KindOf(err) != push.KindConflict {
			t.Errorf("%s: %+v, %v, want %+v", c.name, got, err, c.want)
		}
	}
	for _, c := range []struct {
		token uint64
		at    push.MilliTime
		want  bool
	}{{5, 1999, true}, {4, 1999, false}, {6, 1999, false}, {5, 2000, false}} {
		if err := is.Admits(c.token, c.at); (err == nil) != c.want {
			t.Errorf("token %d at %d: %v", c.token, c.at, err)
		}
	}
	if err := (&StoredFence{}).Admits(0, 0); err == nil {
		t.Error("a fence that nobody made admits token 0")
	}
}
