//! Small services of a node: disks.

use resources::block::Disk;
use tonic::{Request, Response, Status};
use wire::storage::disk::DiskType;
use wire::storage::storage_service_server::StorageService;
use wire::storage::{Disk as WireDisk, Disks, DisksResponse};

use crate::machine_service::Service;

#[tonic::async_trait]
impl StorageService for Service {
    async fn disks(&self, _: Request<()>) -> Result<Response<DisksResponse>, Status> {
        self.not_in_container()?;
        let disks = self.machine.store.list_as::<Disk>().map_err(|error| Status::internal(error.to_string()))?;
        let disks = disks.iter().map(|disk| wire_disk(disk)).collect();
        Ok(Response::new(DisksResponse { messages: vec![Disks { metadata: None, disks }] }))
    }
}

fn wire_disk(disk: &Disk) -> WireDisk {
    let kind = match disk.r#type.as_str() {
        "ssd" => DiskType::Ssd,
        "hdd" => DiskType::Hdd,
        "nvme" => DiskType::Nvme,
        "sd" => DiskType::Sd,
        _ => DiskType::Unknown,
    };
    WireDisk {
        size: disk.size,
        model: disk.model.clone(),
        device_name: disk.device_path.clone(),
        name: disk.name.clone(),
        serial: disk.serial.clone(),
        modalias: disk.modalias.clone(),
        uuid: disk.uuid.clone(),
        wwid: disk.wwid.clone(),
        r#type: kind.into(),
        bus_path: disk.bus_path.clone(),
        system_disk: disk.system_disk,
        subsystem: disk.subsystem.clone(),
        readonly: disk.readonly,
    }
}
