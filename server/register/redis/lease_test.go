package redis

import (
	"slices"
	"testing"

	"carillon/server/clock"
	"carillon/server/push"
	"carillon/server/redisdb/redisdbtest"
	"carillon/server/redistest"
	"carillon/server/register"
)

// A room that cannot reach Redis has to find the others by it.
func TestLastRooms_AreKnownWithoutRedis(t *testing.T) {
	of := pool.Take(t, redistest.FormStandalone)
	db := redisdbtest.Open(t, of, clock.System)
	r := open(t, db, clock.System)
	if got := r.LastRooms(); len(got) != 0 {
		t.Errorf("before the table was read: got %v", got)
	}
	var want []register.Room
	for i, id := range []push.RoomID{"north", "south"} {
		room := register.Room{ID: id, Boot: push.BootID(i + 1), Addr: string(id) + ":8083"}
		if err := r.Join(t.Context(), room); err != nil {
			t.Fatal(err)
		}
		want = append(want, room)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Rooms(t.Context()); err == nil {
		t.Error("the table can still be read")
	}
	if got := r.LastRooms(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
