package api_test

import (
	"bytes"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
)

// managedPod is a pod as its controller and its node have made it.
func managedPod(i int) *corev1.Pod {
	set := `{"f:metadata":{"f:labels":{"f:app":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"a\"}":{".":{},"f:image":{}}},"f:dnsPolicy":{}}}`
	ips := fmt.Sprintf(`{"f:status":{"f:conditions":{"k:{\"type\":\"Ready\"}":{".":{},"f:status":{}}},"f:podIPs":{".":{},"k:{\"ip\":\"10.244.0.%d\"}":{".":{},"f:ip":{}}},"f:containerStatuses":{},"f:startTime":{}}}`, i)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("p", i), Namespace: "demo", ManagedFields: []metav1.ManagedFieldsEntry{
			{Manager: "kube-controller-manager", Operation: "Update", APIVersion: "v1", FieldsType: "FieldsV1", FieldsV1: &metav1.FieldsV1{Raw: []byte(set)}},
			{Manager: "kubelet", Operation: "Update", APIVersion: "v1", FieldsType: "FieldsV1", FieldsV1: &metav1.FieldsV1{Raw: []byte(ips)}, Subresource: "status"},
		}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "a:1"}}},
	}
}

func TestSharedBytes(t *testing.T) {
	for i := range 3 {
		msg, err := managedPod(i).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		given := bytes.Clone(msg)
		var r api.Record
		r.SetBytes(given)
		clear(given)
		if !bytes.Equal(r.Full(), msg) || r.Len() != len(msg) || !bytes.Equal(r.AppendTo(nil), msg) {
			t.Errorf("pod %d is put together as %q", i, r.Full())
		}
		if len(r.Bytes) > len(msg)-250 {
			t.Errorf("pod %d keeps %d of %d bytes for itself", i, len(r.Bytes), len(msg))
		}
	}
	for _, msg := range []string{"", "{}", `{"a":"b"}`, "\n", "\n\x05abc", "\x12\x03abc"} {
		var r api.Record
		r.SetBytes([]byte(msg))
		if string(r.Full()) != msg || string(r.Bytes) != msg {
			t.Errorf("%q became %q", msg, r.Full())
		}
	}
}

func FuzzSharedBytes(f *testing.F) {
	msg, err := managedPod(1).Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(msg)
	f.Add([]byte("\n\x00\n\x00"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		var r api.Record
		r.SetBytes(msg)
		if !bytes.Equal(r.Full(), msg) || r.Len() != len(msg) {
			t.Errorf("%q became %q", msg, r.Full())
		}
	})
}
