package center

import (
	"testing"
	"time"
)

func TestTasks_ReachEachUserOfAListOnce(t *testing.T) {
	inTaskWorld(t, func(w *taskWorld) {
		users := w.names(1000)
		w.run()
		id := w.make(w.upload(users))
		if took := w.await(id, "completed"); took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
		w.wantCopies(id, users, 1)
		w.wantCounts(id, 1000, 0, 0)
		if p := w.task(id).Progress; p.Percent != 100 || p.Users != 1000 {
			t.Errorf("got %+v", p)
		}
	})
}
