package bench

import "testing"

func TestFloor_EveryByteArrivesAndNothingIsLeft(t *testing.T) {
	f, err := measureFloor(40, 300)
	if err != nil {
		t.Fatal(err)
	}
	if f.cpu <= 0 || f.round <= 0 {
		t.Errorf("got %+v, want times", f)
	}
}
